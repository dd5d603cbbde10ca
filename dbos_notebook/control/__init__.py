"""Steering workflows: a plan, the call to DBOS, and a receipt. Never SQL of our own that writes.

``verbs``, ``settings`` and ``forks`` know what each verb does to a row and why not; ``plan`` and
``receipt`` are what a person sees; ``steer`` carries a plan out; ``calls`` is the one door to
``DBOSClient``; ``rows`` reads, before and after; ``schedules``, ``repair``, ``status`` and
``waiting`` are the calls that need more than one verb; ``contexts`` keeps a schedule's pickle from
running; ``alive`` tells whether work will find an executor; ``history`` keeps the audit.
"""
