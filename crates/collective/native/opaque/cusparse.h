// Stands in for NVIDIA's cusparse.h where its large wheel is not installed: torch's headers name these types, and nothing
// here uses them. The real header, where there is one, comes first.
#pragma once
typedef struct cusparseContext* cusparseHandle_t;
typedef int cusparseStatus_t;
