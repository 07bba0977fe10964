"""What a pickle may do to whoever loads it."""

import os


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder="executed"):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)
