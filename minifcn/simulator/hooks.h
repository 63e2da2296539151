// What g++ calls in a checked build: before each memory access (-fsanitize=thread), and where
// integer arithmetic goes wrong (-fsanitize=undefined). Its own run-time libraries are not used.
#pragma once
#include "machine.h"

void before_access(const void* address, int size, bool writes, void* code);
struct SourceLocation { const char* file; uint32_t line, column; };
struct TypeDescriptor { uint16_t kind, info; char name[1]; };
struct ArithmeticData { SourceLocation where; const TypeDescriptor* type; };
struct ShiftData { SourceLocation where; const TypeDescriptor *left, *right; };
struct IndexData { SourceLocation where; const TypeDescriptor *array, *index; };
void arithmetic_fault(int kind, const SourceLocation& where, const TypeDescriptor* type,
                      uint64_t left, uint64_t right, const char* sign);

#define CALLER __builtin_return_address(0)
#define ACCESSES(prefix, n) \
    OF_THIS_FILE void __tsan_##prefix##read##n(void* p) { before_access(p, n, false, CALLER); } \
    OF_THIS_FILE void __tsan_##prefix##write##n(void* p) { before_access(p, n, true, CALLER); }
ACCESSES(, 1) ACCESSES(, 2) ACCESSES(, 4) ACCESSES(, 8) ACCESSES(, 16)
ACCESSES(unaligned_, 2) ACCESSES(unaligned_, 4) ACCESSES(unaligned_, 8) ACCESSES(unaligned_, 16)
ACCESSES(volatile_, 1) ACCESSES(volatile_, 2) ACCESSES(volatile_, 4) ACCESSES(volatile_, 8)
ACCESSES(volatile_, 16)
// a structure of another size: its bytes four at a time
static void range(char* p, size_t n, bool writes, void* code) {
    for (size_t i = 0; i < n; i += 4) before_access(p + i, n - i < 4 ? n - i : 4, writes, code);
}
OF_THIS_FILE void __tsan_read_range(void* p, size_t n) { range((char*)p, n, false, CALLER); }
OF_THIS_FILE void __tsan_write_range(void* p, size_t n) { range((char*)p, n, true, CALLER); }
OF_THIS_FILE void __tsan_init() {}
OF_THIS_FILE void __tsan_func_entry(void*) {}
OF_THIS_FILE void __tsan_func_exit() {}
OF_THIS_FILE void __tsan_vptr_update(void**, void*) {}

#define OVERFLOWS(name, sign) \
    OF_THIS_FILE void __ubsan_handle_##name##_overflow(ArithmeticData* d, uint64_t a, uint64_t b) { \
        arithmetic_fault(0, d->where, d->type, a, b, sign); \
    }
OVERFLOWS(add, "+") OVERFLOWS(sub, "-") OVERFLOWS(mul, "*")
OF_THIS_FILE void __ubsan_handle_negate_overflow(ArithmeticData* d, uint64_t a) {
    arithmetic_fault(0, d->where, d->type, 0, a, "-");
}
OF_THIS_FILE void __ubsan_handle_shift_out_of_bounds(ShiftData* d, uint64_t a, uint64_t b) {
    arithmetic_fault(1, d->where, d->left, a, b, "<< or >>");
}
OF_THIS_FILE void __ubsan_handle_divrem_overflow(ArithmeticData* d, uint64_t a, uint64_t b) {
    arithmetic_fault(2, d->where, d->type, a, b, "/ or %");
}
OF_THIS_FILE void __ubsan_handle_out_of_bounds(IndexData* d, uint64_t index) {
    arithmetic_fault(3, d->where, d->array, index, 0, "[]");
}
