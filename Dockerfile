# Everything that trains and predicts, in one image:
#     docker build -t nnunet_cmc .
#     docker run --rm --gpus all --ipc=host --user "$(id -u):$(id -g)" -v "$PWD":/data nnunet_cmc \
#         nnUNetv2_train 502 3d_fullres 0 -tr CMCTrainer -p CMCNNUNetPlans
# /data has nnU-Net's folders raw, preprocessed and results. Workers pass batches through shared memory: --ipc=host.
FROM python:3.12-slim

# torch.compile (nnUNet_compile=1) needs a C++ compiler
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/nnunet_cmc
# gigabytes that do not change with our sources, in a layer of their own
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch nnunetv2

COPY LICENSE MANIFEST.in README.md pyproject.toml setup.py ./
COPY dataset_conversion dataset_conversion
COPY nnunet_cmc nnunet_cmc
COPY planners planners
COPY trainers trainers
RUN pip install --no-cache-dir -c constraints.txt .

# any user may run it: what is cached goes to /tmp
ENV HOME=/tmp \
    nnUNet_raw=/data/raw \
    nnUNet_preprocessed=/data/preprocessed \
    nnUNet_results=/data/results
WORKDIR /data
CMD ["nnunet_cmc", "doctor"]
