"""`feedmill bench storm --minutes M`: the whole service under faults, then an audit of its data.

Two workers, a coverage service and an ordinary producer run on a broker of their own. A foreign producer sends JSON,
and a poison record every second. Meanwhile processes, including the broker, are killed by `kill -9` and paused by
SIGSTOP. One commit fails while its worker receives SIGTERM. `faults` plans the faults; the same seed gives the same
plan. At the end the producers stop, everything is refined and folded, and the audit must be exact.

Recovery time runs from the fault to the moment when every partition moves again, so it includes the length of a pause.
"""
