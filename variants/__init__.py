"""What is measured: attention variants that share one interface.

`api` holds the contract, `registry` finds variants, and each method is one file under `full/`, `sparse/`, `linear/` or
`chunked/`. A file dropped into one of these folders is found by itself; nothing else in the project names it.

Legend of shapes, used everywhere: B batch, H query heads, Hkv key/value heads (divides H), Nq and Nk sequence
lengths of queries and keys (N where they are equal), D head dimension of q and k, Dv of v, C chunk, w window,
m features or landmarks.
"""
