// Stands in for NVIDIA's cublas_v2.h where its large wheel is not installed: torch's headers name these types, and nothing
// here uses them. The real header, where there is one, comes first.
#pragma once
typedef struct cublasContext* cublasHandle_t;
typedef int cublasStatus_t;
