"""Networks that embed raw rows for the heads: images, texts, or any torch module."""

from alula_exporters.backbones.base import Backbone, ImageBackbone, VectorBackbone
from alula_exporters.backbones.cnn import small_cnn
from alula_exporters.backbones.images import image_backbone
from alula_exporters.backbones.resnet import small_resnet

__all__ = ["Backbone", "ImageBackbone", "VectorBackbone", "image_backbone", "small_cnn", "small_resnet"]
