"""A report in fewer words."""

from jaxcon import diagnostics


def report(z1, z2=None, temperature=1.0):
    return diagnostics.collapse_report(z1, z1 if z2 is None else z2, temperature=temperature)


def kind(z1, z2=None, temperature=1.0):
    """The words with which the verdict begins."""
    return report(z1, z2, temperature).verdict.split(":")[0]
