"""A window that shows pictures as they come, by Tk, which comes with most Pythons."""

from typing import Any

from PIL import Image

from deep_emotion_jax.errors import UserError


class Window:
    """A window on the display; closing it, Escape and q end the show.

    Args:
      title: of the window.

    Raises:
      UserError: without Tk or a display.
    """

    def __init__(self, title: str):
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise UserError(
                "--show needs Python's Tk: install it, as with apt install python3-tk, or use the "
                "page of `deep-emotion demo`, which has a webcam"
            ) from error
        self._image_tk = ImageTk
        self._closed = False
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise UserError(
                f"--show finds no display ({error}): leave it out, or use the page of "
                "`deep-emotion demo`, which has a webcam"
            ) from error
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, self.close)

    def show(self, image: Image.Image) -> bool:
        """Show a picture, and return False once the window is closed."""
        if not self._closed:
            self._photo = self._image_tk.PhotoImage(image)  # Tk keeps no reference.
            self._label.configure(image=self._photo)
            self._root.update()
        return not self._closed

    def close(self, _: Any = None) -> None:
        """Close the window; doing so twice has no effect."""
        if not self._closed:
            self._closed = True
            self._root.destroy()
