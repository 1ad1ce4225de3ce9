"""The `skpadim` command: how it begins, and what becomes of errors."""

from __future__ import annotations

import os
import sys
import warnings


def main(arguments: list[str] | None = None) -> int:
    """Run the command, with the command line's arguments by default; returns its exit code."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as interruption:
        print("; ".join(["skpadim: interrupted", *interruption.args]), file=sys.stderr)
        return 130


def _run(arguments):
    # Here, where an interruption is told in words: they take a while.
    from PIL import Image

    from skpadim.command._options import parse
    from skpadim.command._outputs import check_outputs
    from skpadim.images._unreadable import UnreadableImageError

    options = parse(arguments)
    _let_threads_sleep()
    max_pixels = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        # Names no file. At twice as many pixels there is an error, which names it.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.showwarning = lambda message, *_: print(
            f"skpadim: warning: {message}", file=sys.stderr
        )
        try:
            check_outputs(options)
            if getattr(options, "max_pixels", None) is not None:
                _allow_pixels(options.max_pixels)
            code = options.run(options)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output (head, say) has left; the interpreter must not complain
            # about it once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except UnreadableImageError as error:
            hint = " --on-error skip leaves such images out." * hasattr(options, "on_error")
            print(f"skpadim: error: {error.path} {error.problem}{hint}", file=sys.stderr)
            return 1
        except (
            OSError,
            TypeError,
            ValueError,
            ImportError,  # of an extra, timm say
            MemoryError,
            Image.DecompressionBombError,
        ) as error:
            message = " ".join(str(error).splitlines()) or "There is not enough memory."
            print(f"skpadim: error: {message}", file=sys.stderr)
            return 1
        except RuntimeError as error:
            if "memory" not in str(error):  # torch has no MemoryError
                raise
            print(f"skpadim: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
            return 1
        finally:
            Image.MAX_IMAGE_PIXELS = max_pixels
    return code or 0


def _let_threads_sleep():
    """Have the threads of torch's OpenMP library wait asleep, unless the user has said how."""
    # Before torch is imported. Threads that wait actively, as some of these libraries let them,
    # take the cores from whatever else runs.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # GNU
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel, LLVM


def _allow_pixels(limit):
    """Let images have so many pixels and no more."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None if limit == "none" else limit
    # Up to twice the limit Pillow only warns.
    warnings.simplefilter("error", Image.DecompressionBombWarning)


if __name__ == "__main__":
    sys.exit(main())
