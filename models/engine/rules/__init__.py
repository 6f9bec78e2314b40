"""What a request bars or favours among the next tokens: one file a rule, and the table of them.

No torch is imported before a rule is applied, since those who only ask for rules need none.
"""
