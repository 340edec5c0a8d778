// Stands in for NVIDIA's cusolverDn.h where its large wheel is not installed: torch's headers name these types, and nothing
// here uses them. The real header, where there is one, comes first.
#pragma once
typedef struct cusolverDnContext* cusolverDnHandle_t;
