"""The one exception a user is meant to see."""


class UserError(Exception):
    """Bad input, told in one sentence: what is wrong, what was expected, how to mend it.

    `launch.py` prints the sentence and exits with code 1; library callers may catch it.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """
