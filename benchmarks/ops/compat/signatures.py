"""The parameters of the originals: what a call of them may look like."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from pixelkernels.compat._patch import allows, signature_of

# by name in pixelkernels.compat; methods have `self`
ORIGINALS: dict[str, Callable[..., Any]] = {
    "cas.lss": lambda: None,
    "cas.lss.forward": lambda self, gt, softmaxed_tensor: None,
    "cfbi.global_matching": (
        lambda reference_embeddings, query_embeddings, reference_labels, n_chunks=100, dis_bias=0.0,
        ori_size=None, atrous_rate=1, use_float16=True, atrous_obj_pixel_num=0: None
    ),
    "cfbi.global_matching_for_eval": (
        lambda all_reference_embeddings, query_embeddings, all_reference_labels, n_chunks=20,
        dis_bias=0.0, ori_size=None, atrous_rate=1, use_float16=True, atrous_obj_pixel_num=0: None
    ),
    "cfbi.local_matching": (
        lambda prev_frame_embedding, query_embedding, prev_frame_labels, dis_bias=0.0,
        multi_local_distance=(15,), ori_size=None, atrous_rate=1, use_float16=True,
        allow_downsample=True, allow_parallel=True: None
    ),
    "clickseg.get_next_points_removeall": (
        lambda pred, gt, points, points_focus, rois, click_indx, pred_thresh=0.49,
        remove_prob=0.0: None
    ),
    "contrastiveseg.PixelContrastLoss": lambda configer: None,
    "contrastiveseg.PixelContrastLoss.forward": (
        lambda self, feats, labels=None, predict=None, queue=None: None
    ),
    "dedode.match": (
        lambda self, keypoints_A, descriptions_A, keypoints_B, descriptions_B, P_A=None, P_B=None,
        normalize=False, inv_temp=1, threshold=0.0: None
    ),
    "dino.label_propagation": (
        lambda args, model, frame_tar, list_frame_feats, list_segs, mask_neighborhood=None: None
    ),
    "discriminative.ContrastiveLoss": (
        lambda delta_var, delta_dist, norm="fro", alpha=1.0, beta=1.0, gamma=0.001,
        ignore_label=None, impl=None: None
    ),
    "discriminative.ContrastiveLoss.forward": lambda self, input_, target: None,
    "docs_correlation.Correlation": (
        lambda pad_size=0, kernel_size=0, max_displacement=0, stride1=1, stride2=2,
        corr_multiply=1: None
    ),
    "docs_correlation.Correlation.forward": lambda self, input1, input2: None,
    "feelvos.nearest_neighbor_features_per_object": (
        lambda reference_embeddings, query_embeddings, reference_labels, k_nearest_neighbors,
        gt_ids=None, n_chunks=100: None
    ),
    "feelvos.local_previous_frame_nearest_neighbor_features_per_object": (
        lambda prev_frame_embedding, query_embedding, prev_frame_labels, gt_ids,
        max_distance=12: None
    ),
    "hdmnet.get_similarity": lambda q, s, mask: None,
    "kornia.distance_transform": lambda image, kernel_size=3, h=0.35: None,
    "loftr.coarse_matching": (
        lambda self, feat_c0, feat_c1, data, mask_c0=None, mask_c1=None: None
    ),
    "metavos.label_transfer": (
        lambda scores, labels_1, images_2, emb_size, picked_points, flow_2=None, avg_k_max=None,
        crf_niter=0: None
    ),
    "metric_learning.SupConLoss": lambda temperature=0.1, **kwargs: None,
    "metric_learning.SupConLoss.forward": (
        lambda self, embeddings, labels=None, indices_tuple=None, ref_emb=None,
        ref_labels=None: None
    ),
    "monai.distance_transform_edt": (
        lambda img, sampling=None, return_distances=True, return_indices=False, distances=None,
        indices=None, *, block_params=None, float64_distances=False: None
    ),
    "monai.HausdorffDTLoss": (
        lambda alpha=2.0, include_background=False, to_onehot_y=False, sigmoid=False, softmax=False,
        other_act=None, reduction="mean", batch=False: None
    ),
    "monai.HausdorffDTLoss.forward": lambda self, input, target: None,
    "monai.LogHausdorffDTLoss": (
        lambda alpha=2.0, include_background=False, to_onehot_y=False, sigmoid=False, softmax=False,
        other_act=None, reduction="mean", batch=False: None
    ),
    "monai.LogHausdorffDTLoss.forward": lambda self, input, target: None,
    "monai.compute_average_surface_distance": (
        lambda y_pred, y, include_background=False, symmetric=False, distance_metric="euclidean",
        spacing=None: None
    ),
    "monai.compute_hausdorff_distance": (
        lambda y_pred, y, include_background=False, distance_metric="euclidean", percentile=None,
        directed=False, spacing=None: None
    ),
    "monai.compute_surface_dice": (
        lambda y_pred, y, class_thresholds, include_background=False, distance_metric="euclidean",
        spacing=None, use_subvoxels=False: None
    ),
    "panet.calDist": lambda self, fts, prototype, scaler=20: None,
    "panet.getFeatures": lambda self, fts, mask: None,
    "persam.point_selection": lambda mask_sim, topk=1: None,
    "pfenet.weighted_gap": lambda supp_feat, mask: None,
    "ritm.DistMaps": (
        lambda norm_radius, spatial_scale=1.0, cpu_mode=False, use_disks=False: None
    ),
    "ritm.DistMaps.forward": lambda self, x, coords: None,
    "ritm.DistMaps.get_coord_features": lambda self, points, batchsize, rows, cols: None,
    "ritm.get_next_click": lambda self, pred_mask, padding=True: None,
    "ritm.get_next_points": lambda pred, gt, points, click_indx, pred_thresh=0.49: None,
    "sam2.sample_one_point_from_error_center": lambda gt_masks, pred_masks, padding=True: None,
    "sam2.sample_random_points_from_errors": lambda gt_masks, pred_masks, num_pt=1: None,
    "sam3.edt_triton": lambda data: None,
    "sam3.sample_one_point_from_error_center": lambda gt_masks, pred_masks, padding=True: None,
    "sccan.generate_prior": (
        lambda self, query_feat_high, final_supp_list, mask_list, fts_size: None
    ),
    "skimage.expand_labels": lambda label_image, distance=1, spacing=1: None,
    "scipy.distance_transform_edt": (
        lambda input, sampling=None, return_distances=True, return_indices=False, distances=None,
        indices=None: None
    ),
    "spoco.ContrastiveLoss": (
        lambda delta_var, delta_dist, norm="fro", alpha=1.0, beta=1.0, gamma=0.001,
        ignore_label=None, zero_label_push=False, **kwargs: None
    ),
    "spoco.ContrastiveLoss.forward": lambda self, input_, target: None,
    "torchmetrics.distance_transform": (
        lambda x, sampling=None, metric="euclidean", engine="pytorch": None
    ),
    "torchmetrics.hausdorff_distance": (
        lambda preds, target, num_classes, include_background=False, distance_metric="euclidean",
        spacing=None, directed=False, input_format="one-hot": None
    ),
}  # fmt: skip


def fits(name: str) -> bool:
    """Whether ours allows every call of the original, and so do the methods of both."""
    return all(_fits(each) for each in ORIGINALS if each == name or each.startswith(f"{name}."))


def _fits(name: str) -> bool:
    module, _, path = name.partition(".")
    ours = attrgetter(path)(importlib.import_module(f"pixelkernels.compat.{module}"))
    original = ORIGINALS[name]
    is_method = "self" in inspect.signature(original).parameters
    return allows(signature_of(ours, is_method), signature_of(original, is_method))
