"""Answers about many workflows: statistics, failures, comparisons, queues, diagnosis."""
