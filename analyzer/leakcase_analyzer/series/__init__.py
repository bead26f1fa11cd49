"""Judgement of one series over time: does it grow, when, and where.

Pure functions over arrays; nothing here reads a case, prints or knows of the rest of leakcase.

    growth.judge               does it grow for good, how fast, how sure is that
    activity.segments          when did the process work, when did it rest
    trigger.trigger            in which of the two does it grow
    attribution.attribute      which regions grew, how much of the growth does each explain
"""
