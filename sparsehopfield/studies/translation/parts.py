"""The parts of a translator that its network and its measurements name alike."""

#: The separation maps of associations, and the places where these are.
MAPS, PLACES = ("softmax", "sparsemax", "entmax15", "normmax"), ("encoder", "decoder", "cross")
#: Layers of encoder and decoder, and heads of each association.
LAYERS, HEADS = 2, 4
