"""The parts of a translator that its network and its measurements name alike."""

#: The separation maps of associations, and the places where these are.
MAPS, PLACES = ("softmax", "sparsemax", "entmax15", "normmax"), ("encoder", "decoder", "cross")
#: Which pieces associations see: all, near ones, the best ones, or all by random features of softmax's kernel.
STRUCTURES = ("all", "window", "topk", "features")
#: Layers of encoder and decoder, and heads of each association.
LAYERS, HEADS = 2, 4
