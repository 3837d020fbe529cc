"""What Stepwell reaches on this machine, beside what bare durable code reaches in the same minute. `python -m bench
--help`.
"""
