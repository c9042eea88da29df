"""What a staged training does beside the ordinary loop (docs/recipe.md).

Of the training videos: `proposals` finds segments where the network sees
foreground, `naming` gives each a class by a `regression`, `targets` makes
labels of snippets of them, which a second training learns; `quality` learns how
well a proposal fits such a segment, which scores and mends what is localised.
Pure functions of arrays; staging.py says when.
"""
