import six


def name() -> str:
    return six.ensure_str(b"shop")
