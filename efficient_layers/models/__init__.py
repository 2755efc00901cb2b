# SPDX-License-Identifier: Apache-2.0
"""Model families, each a frozen config and a module, and the registry that creates them."""

from efficient_layers.models.albert import Albert, AlbertConfig
from efficient_layers.models.bert import Bert, BertConfig
from efficient_layers.models.convnext import ConvNeXt, ConvNeXtConfig
from efficient_layers.models.decoder import Decoder, DecoderConfig
from efficient_layers.models.distilbert import DistilBert, DistilBertConfig
from efficient_layers.models.efficientnet import EfficientNet, EfficientNetConfig
from efficient_layers.models.generate import generate
from efficient_layers.models.ghostnet import GhostNet, GhostNetConfig
from efficient_layers.models.gpt2 import GPT2, GPT2Config
from efficient_layers.models.menghani_cnn import MenghaniCNN, MenghaniCNNConfig
from efficient_layers.models.mlp_mixer import MLPMixer, MLPMixerConfig
from efficient_layers.models.mnasnet import MnasNet, MnasNetConfig
from efficient_layers.models.mnist1d import MNIST1D, MNIST1DConfig
from efficient_layers.models.mobilebert import MobileBert, MobileBertConfig
from efficient_layers.models.mobilenet_v1 import MobileNetV1, MobileNetV1Config
from efficient_layers.models.mobilenet_v2 import MobileNetV2, MobileNetV2Config
from efficient_layers.models.mobilenet_v3 import MobileNetV3, MobileNetV3Config
from efficient_layers.models.mobilevit import MobileViT, MobileViTConfig
from efficient_layers.models.mqar import MQAR, MQARConfig
from efficient_layers.models.pqrnn import PQRNN, PQRNNConfig
from efficient_layers.models.registry import create, describe, export_torch, load_torch, names
from efficient_layers.models.repvgg import RepVGG, RepVGGConfig
from efficient_layers.models.resnet import ResNet, ResNetConfig
from efficient_layers.models.seq2seq import Seq2Seq, Seq2SeqConfig
from efficient_layers.models.sequence_classifier import SequenceClassifier, SequenceClassifierConfig
from efficient_layers.models.shufflenet_v2 import ShuffleNetV2, ShuffleNetV2Config
from efficient_layers.models.squeezenet import SqueezeNet, SqueezeNetConfig
from efficient_layers.models.torch_weights import WeightsError
from efficient_layers.models.vgg import VGG, VGGConfig
from efficient_layers.models.vit import ViT, ViTConfig
from efficient_layers.models.weight_file import load_weights, save_weights

__all__ = [
    "GPT2",
    "MNIST1D",
    "MQAR",
    "PQRNN",
    "VGG",
    "Albert",
    "AlbertConfig",
    "Bert",
    "BertConfig",
    "ConvNeXt",
    "ConvNeXtConfig",
    "Decoder",
    "DecoderConfig",
    "DistilBert",
    "DistilBertConfig",
    "EfficientNet",
    "EfficientNetConfig",
    "GPT2Config",
    "GhostNet",
    "GhostNetConfig",
    "MLPMixer",
    "MLPMixerConfig",
    "MNIST1DConfig",
    "MQARConfig",
    "MenghaniCNN",
    "MenghaniCNNConfig",
    "MnasNet",
    "MnasNetConfig",
    "MobileBert",
    "MobileBertConfig",
    "MobileNetV1",
    "MobileNetV1Config",
    "MobileNetV2",
    "MobileNetV2Config",
    "MobileNetV3",
    "MobileNetV3Config",
    "MobileViT",
    "MobileViTConfig",
    "PQRNNConfig",
    "RepVGG",
    "RepVGGConfig",
    "ResNet",
    "ResNetConfig",
    "Seq2Seq",
    "Seq2SeqConfig",
    "SequenceClassifier",
    "SequenceClassifierConfig",
    "ShuffleNetV2",
    "ShuffleNetV2Config",
    "SqueezeNet",
    "SqueezeNetConfig",
    "VGGConfig",
    "ViT",
    "ViTConfig",
    "WeightsError",
    "create",
    "describe",
    "export_torch",
    "generate",
    "load_torch",
    "load_weights",
    "names",
    "save_weights",
]
