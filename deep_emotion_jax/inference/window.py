"""A window that shows a stream of pictures, with Python's Tk."""

from typing import Any

from PIL import Image

from deep_emotion_jax.errors import UserError


class Window:
    """A window on the display; it closes by its button, Escape or q.

    Args:
      title: the title of the window.

    Raises:
      UserError: without Tk or a display.
    """

    def __init__(self, title: str):
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise UserError(
                "--show needs Python's Tk: install it, for example with apt install python3-tk, or "
                "use the camera in `deep-emotion demo`"
            ) from error
        self._image_tk = ImageTk
        self._closed = False
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise UserError(
                f"--show needs a display ({error}): leave it out, or use the camera in "
                "`deep-emotion demo`"
            ) from error
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, self.close)

    def show(self, image: Image.Image) -> bool:
        """Show a picture, and return whether the window is still open."""
        if not self._closed:
            self._photo = self._image_tk.PhotoImage(image)  # Tk keeps no reference.
            self._label.configure(image=self._photo)
            self._root.update()
        return not self._closed

    def close(self, _: Any = None) -> None:
        """Close the window; no effect if it is closed."""
        if not self._closed:
            self._closed = True
            self._root.destroy()
