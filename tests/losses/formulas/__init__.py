"""The losses as the papers print them: float64 NumPy, one anchor at a time, nothing shared with jaxcon.

A file holds the formulas of the file of the same name in `jaxcon/losses`.

A formula takes the rows that count (masked ones are taken out by the caller), the `ids` and
`labels` of the rows, and the settings. It returns a value per anchor and whether that anchor counts,
or a scalar where the loss has no anchors. `held` are the arguments again: where a paper holds a
factor constant in the gradient, the formula reads it from there, so that a finite difference in the
arguments alone is the gradient that the paper means.
"""
