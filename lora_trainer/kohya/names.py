"""Every name that kohya's LoRA form or sd-scripts' LoRA scripts know, and what becomes of it here.

A name is one of: an option of ours (same name, or in RENAMED), something outside RunConfig (OUTSIDE), without effect on
a LoRA for SD 1/2/SDXL (NO_EFFECT, by reason), not offered (NOT_OFFERED), or read by rules of its own (RULES).
"""

from __future__ import annotations

# the form's name -> our option
RENAMED = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}

# a name of older files -> today's
OLD_NAMES = {
    "lora_network_weights": "network_weights",
    "conv_dims": "conv_block_dims",
    "conv_alphas": "conv_block_alphas",
    "cache_latent": "cache_latents",
    "caption_extention": "caption_extension",
    "sdxl_min_timestep": "min_timestep",
    "sdxl_max_timestep": "max_timestep",
    "no_half_vae": "sdxl_no_half_vae",
}

# paths and facts about the checkpoint: returned to the caller, who knows what to do with them
OUTSIDE = (
    "pretrained_model_name_or_path", "vae", "train_data_dir", "dataset_config", "output_name",
    "output_dir", "logging_dir", "resume", "v2", "sdxl", "v_parameterization",
)  # fmt: skip

# read by rules of their own, in form.py and arguments.py
RULES = (
    "LoRA_type", "LyCORIS_preset", "additional_parameters", "bypass_mode", "epoch", "fp8_base", "locon", "lr_warmup",
    "network_args", "network_module", "network_train", "noise_offset_type", "rank_dropout_scale", "save_model_as",
    "use_8bit_adam", "use_cp", "use_lion_optimizer", "use_scalar",
)  # fmt: skip

# names that only kohya's form has: they tell a form's JSON from one with sd-scripts' names
FORM_ONLY = (
    "LoRA_type", "additional_parameters", "epoch", "lr_warmup", "max_resolution", "optimizer", "noise_offset_type",
    "model_list", "save_as_bool", "stop_text_encoder_training", "no_token_padding", "sdxl",
)  # fmt: skip

# a JSON of another tab of kohya's GUI carries one of these
OTHER_TABS = {
    "learning_rate_te": "Dreambooth or Finetuning",
    "learning_rate_te1": "Dreambooth or Finetuning",
    "learning_rate_te2": "Dreambooth or Finetuning",
    "train_text_encoder": "Finetuning",
    "latent_metadata_filename": "Finetuning",
    "num_vectors_per_token": "Textual Inversion",
    "token_string": "Textual Inversion",
}

OTHER_FAMILIES = ("flux1_checkbox", "sd3_checkbox", "hunyuan_image_checkbox", "anima_checkbox", "lumina_checkbox")

_OTHER_MODEL = "only SD 1, SD 2 and SDXL are trained"
NOT_OFFERED: dict[str, str] = {  # what becomes of it instead, or why not
    **dict.fromkeys(OTHER_FAMILIES, _OTHER_MODEL),
    "train_inpainting": "inpainting models aren't trained",
    "resume_from_huggingface": "nothing is downloaded; give local files",
    "locon": "use LoRA_type Kohya LoCon",
    # options of sd-scripts without a field in the form
    "conditioning_data_dir": "it belongs into a dataset file",
    "config_file": "give that file itself",
    "dataset_class": "no code of others is run on the images",
    "dataset_repeats": "the repeats are in the folder's name",
    "debug_dataset": "use the command check",
    "face_crop_aug_range": "crop the faces beforehand",
    "in_json": "write its captions beside the images, with caption FOLDER --metadata FILE",
    "output_config": "use config convert",
}

NO_EFFECT: dict[str, tuple[str, ...]] = {
    "these concern speed and memory only, which this program handles itself": (
        "cache_info", "cpu_offload_checkpointing", "ddp_gradient_as_bucket_view", "ddp_static_graph", "ddp_timeout",
        "disable_mmap_load_safetensors", "fused_backward_pass", "highvram", "lowram", "lowvram",
        "max_data_loader_n_workers", "mem_eff_attn", "no_half_vae", "persistent_data_loader_workers", "sdpa",
        "sdxl_no_half_vae", "skip_cache_check", "tokenizer_cache_dir", "torch_compile", "xformers",
    ),
    "the model's weights stay as they are loaded": (
        "fp8_base_unet",
    ),
    "for the launcher; use accelerate launch for several processes": (
        "deepspeed",
        "dynamo_backend", "dynamo_mode", "dynamo_use_dynamic", "dynamo_use_fullgraph", "extra_accelerate_launch_args",
        "gpu_ids", "main_process_port", "multi_gpu", "num_cpu_threads_per_process", "num_machines", "num_processes",
    ),
    "the resume state is always saved": (
        "save_last_n_epochs_state", "save_last_n_steps_state", "save_state", "save_state_on_train_end",
    ),
    "nothing is uploaded, and the log is log.jsonl in the run's folder": (
        "async_upload", "console_log_file", "console_log_level", "console_log_simple", "huggingface_path_in_repo",
        "huggingface_repo_id", "huggingface_repo_type", "huggingface_repo_visibility", "huggingface_token",
        "log_config", "log_prefix", "log_tracker_config", "log_tracker_name", "save_state_to_huggingface",
        "use_wandb", "use_wandb_checkbox", "wandb_api_key", "wandb_api_key_textbox", "wandb_run_name",
    ),
    "held-out images are measured at every save, some of the most frequent size": (
        "max_validation_steps", "validate_every_n_epochs", "validate_every_n_steps",
    ),
    "a LoRA is no embedding": ("metadata_is_negative_embedding",),
    "kohya's trainer doesn't use it for a LoRA either": (
        "block_lr", "fp16_master_weights_and_gradients", "no_token_padding", "offload_optimizer_device",
        "offload_optimizer_nvme_path", "offload_param_device", "offload_param_nvme_path",
        "stop_text_encoder_training", "stop_text_encoder_training_pct", "use_safetensors", "zero3_init_flag",
        "zero3_save_16bit_model", "zero_stage",
    ),
    "for kohya's form only": ("file_path", "model_list", "save_as", "save_as_bool"),
    "for Flux and Chroma only": (
        "ae", "apply_t5_attn_mask", "blocks_to_swap", "clip_l", "discrete_flow_shift", "double_blocks_to_swap",
        "enable_all_linear", "flux1_cache_text_encoder_outputs", "flux1_cache_text_encoder_outputs_to_disk",
        "ggpo_beta", "ggpo_sigma", "guidance_scale", "img_attn_dim", "img_mlp_dim", "img_mod_dim", "in_dims",
        "mem_eff_save", "model_prediction_type", "model_type", "show_timesteps", "show_timesteps_resolution",
        "single_blocks_to_swap", "single_dim", "single_mod_dim", "split_mode", "split_qkv", "t5xxl", "t5xxl_lr",
        "t5xxl_max_token_length", "timestep_sampling", "train_blocks", "train_double_block_indices",
        "train_lora_ggpo", "train_single_block_indices", "train_t5xxl", "txt_attn_dim", "txt_mlp_dim", "txt_mod_dim",
    ),
    "for SD 3 only": (
        "clip_g", "clip_g_dropout_rate", "logit_mean", "logit_std", "mode_scale", "pos_emb_random_crop_rate",
        "save_clip", "save_t5xxl", "sd3_cache_text_encoder_outputs", "sd3_cache_text_encoder_outputs_to_disk",
        "sd3_clip_l", "sd3_clip_l_dropout_rate", "sd3_disable_mmap_load_safetensors",
        "sd3_enable_scaled_pos_embed", "sd3_fused_backward_pass", "sd3_t5_dropout_rate", "sd3_t5xxl",
        "sd3_text_encoder_batch_size", "t5xxl_device", "t5xxl_dtype", "weighting_scheme",
    ),
}  # fmt: skip

# whole families of names, newer ones too: everything that begins so
NO_EFFECT_PREFIXES = {
    "hunyuan_": "for HunyuanImage only",
    "anima_": "for Anima only",
    "lumina_": "for Lumina only",
    "sd3_": "for SD 3 only",
    "flux1_": "for Flux and Chroma only",
}

# What the form shows where a name of NO_EFFECT isn't simply empty, 0 or false: not worth a word.
FORM_DEFAULTS = {
    "LyCORIS_preset": "full", "factor": -1, "train_on_input": True, "unit": 1, "dynamo_backend": "no",
    "dynamo_mode": "default", "num_cpu_threads_per_process": 2, "num_machines": 1, "num_processes": 1,
    "model_list": "custom", "xformers": "xformers", "discrete_flow_shift": 3.0, "ggpo_beta": 0.01, "ggpo_sigma": 0.03,
    "guidance_scale": 3.5, "model_prediction_type": "sigma_scaled", "model_type": "flux",
    "show_timesteps_resolution": "1024", "t5xxl_max_token_length": 512, "timestep_sampling": "sigma",
    "train_blocks": "all", "train_double_block_indices": "all", "train_single_block_indices": "all",
    "logit_std": 1.0, "mode_scale": 1.29, "sd3_text_encoder_batch_size": 1, "t5xxl_dtype": "bf16",
    "weighting_scheme": "logit_normal", "hunyuan_discrete_flow_shift": 5.0, "hunyuan_model_prediction_type": "raw",
    "hunyuan_timestep_sampling": "sigma", "hunyuan_sigmoid_scale": 1.0, "hunyuan_attn_mode": "torch",
    "anima_discrete_flow_shift": 1.0, "anima_timestep_sampling": "sigmoid", "anima_sigmoid_scale": 1.0,
    "anima_qwen3_max_token_length": 512, "anima_t5_max_token_length": 512, "anima_attn_mode": "torch",
    "anima_compile_backend": "inductor", "anima_compile_mode": "default", "anima_compile_dynamic": "auto",
    "lumina_discrete_flow_shift": 6.0, "lumina_model_prediction_type": "raw", "lumina_timestep_sampling": "shift",
    "lumina_sigmoid_scale": 1.0, "lumina_gemma2_max_token_length": 256,
}  # fmt: skip

REASON = {name: reason for reason, names in NO_EFFECT.items() for name in names}


def no_effect_reason(name: str) -> str | None:
    """Why a name has no effect here, or None if it isn't such a name."""
    if name in REASON:
        return REASON[name]
    return next((reason for prefix, reason in NO_EFFECT_PREFIXES.items() if name.startswith(prefix)), None)
