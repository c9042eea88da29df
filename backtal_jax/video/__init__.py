"""From video files to I3D features; needs the extra `video`."""

import functools

from backtal_jax import errors

# Imports a module of the extra, late.
needs = functools.partial(errors.need, extra='video', what='a video')
