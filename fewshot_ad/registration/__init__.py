"""Registration: where a part lies on an image, and how the image is brought into the pose of the support set."""

from fewshot_ad.registration.background import unlike_background
from fewshot_ad.registration.estimator import ORDERS, POSE_SIDE, PoseEstimator, Poses, pose_estimator, squared
from fewshot_ad.registration.registration import AS_IT_IS, Framing, Registration, fit_registration, scaled_image

__all__ = [
    "AS_IT_IS",
    "ORDERS",
    "POSE_SIDE",
    "Framing",
    "PoseEstimator",
    "Poses",
    "Registration",
    "fit_registration",
    "pose_estimator",
    "scaled_image",
    "squared",
    "unlike_background",
]
