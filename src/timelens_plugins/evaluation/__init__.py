"""lmms-eval plugin: tasks ``timelens_bench*``, ``timelens_original*`` and ``timelens_custom``, model ``timelens``.

``entry`` is what lmms-eval loads; ``hook`` makes it find our task folder; ``specs`` says which annotations and videos a
task reads, ``subsets`` loads them and ``shards`` unpacks them; ``task_functions`` is what the YAML refers to; ``model``
is the chat model.
"""
