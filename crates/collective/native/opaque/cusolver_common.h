// Stands in for NVIDIA's cusolver_common.h where its large wheel is not installed: torch's headers name these types, and nothing
// here uses them. The real header, where there is one, comes first.
#pragma once
typedef int cusolverStatus_t;
