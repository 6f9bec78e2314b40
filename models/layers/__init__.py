"""Layers shared by the families. One legend of shape letters holds for all of `models`:

T  tokens of a step, all sequences packed one after the other      H  hidden size
S  sequences of a step                                             I  intermediate size of the gated MLP
R  rows of a step whose output is wanted                           V  vocabulary
Q  query heads of this rank                                        D  channels of a head
K  key/value heads of this rank                                    G  query heads a key/value head serves (Q / K)
N  blocks of a cache                                               B  tokens per block
E  (sequence, block) pairs that decoding attention visits          L  labels
"""
