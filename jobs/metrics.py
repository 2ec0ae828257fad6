"""The figures of all processes, fields of the hash `keys.METRICS`, written by the scripts (CONTRACT section 7).

`runs:{status}`, `requests:{outcome letter}`; `request_seconds:{bucket}`, `run_seconds:{bucket}` (each value counted in
one bucket, the lowest whose bound is not below it) with `…:sum`; `last_success_ms`.
"""

REQUEST_BUCKETS = ("0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "+Inf")  # seconds
REQUEST_BOUNDS = tuple(map(float, REQUEST_BUCKETS))
RUN_BUCKETS = ("1.0", "5.0", "15.0", "60.0", "300.0", "900.0", "3600.0", "14400.0", "+Inf")
