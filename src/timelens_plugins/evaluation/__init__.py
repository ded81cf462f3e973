"""lmms-eval plugin: tasks ``timelens_bench*`` and ``timelens_original*``, model ``timelens``.

``entry`` is what lmms-eval loads; ``hook`` makes it find our task folder; ``subsets`` says which annotations and videos
a task reads and ``shards`` unpacks them; ``task_functions`` is what the YAML refers to; ``model`` is the chat model.
"""
