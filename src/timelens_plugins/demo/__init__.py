"""The whole story on two CPU cores: a model that cannot ground learns to, by the recipes and the real ``lmms-eval``.

- ``settings``: how large each part is
- ``command``: runs a command with its output in a file and its progress on the terminal
- ``stages``: what is done already, and what it cost
- ``story``: the stages in order
- ``table``: scores of the stages beside what needs no video
"""

from timelens_plugins.demo.settings import SIZES, DemoSettings
from timelens_plugins.demo.story import run_demo

__all__ = ["SIZES", "DemoSettings", "run_demo"]
