import six
from prices import PRICES


def total() -> int:
    return sum(six.itervalues(PRICES))
