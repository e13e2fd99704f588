"""`feedmill bench storm --minutes M`: the whole service under faults, and an audit of what is left of its data.

Two workers, a coverage service and an ordinary producer run on a broker of their own, beside a foreign producer of JSON
that also sends a poison record a second. Meanwhile processes are killed by `kill -9` and paused by SIGSTOP, the broker
among them, and one commit fails while its worker is told to stop. `faults` says what happens when; the same seed gives
the same plan. At the end the producers stop, everything is refined and folded, and the audit must be exact.

Recovery is counted from the fault to the moment when every partition moves again: a pause's own length is part of it.
"""
