# SPDX-License-Identifier: Apache-2.0
"""Which module of ours is which of timm, torchvision or transformers; a file a family."""
