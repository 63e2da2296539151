// Fibers: functions that can stop in the middle and go on later, each on a stack of its own.
//
// A CUDA thread that waits at a barrier must let the others run. As an operating system's thread it
// would cost thousands of times what it computes; a fiber changes places in a few nanoseconds, by
// saving the registers that a function must keep and taking another stack.
#pragma once
#include <stdint.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fibers {

const size_t STACK = 256 << 10;  // address space; pages are taken when touched
// Stacks that all begin at the same place of a page would fight for the same lines of the cache.
const size_t APART = 5 * 64, PLACES = 32;

#if defined(__x86_64__)
struct Place { void* stack_pointer; };
extern "C" __attribute__((visibility("hidden"))) void change_fiber(Place* from, const Place* to);
asm(R"(
    .text
    .hidden change_fiber
    .globl change_fiber
    .type change_fiber, @function
change_fiber:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
inline void prepare(Place& place, char* stack, size_t size, void (*body)()) {
    void** top = (void**)(stack + size - 64);
    *--top = nullptr;        // body never returns
    *--top = (void*)body;    // where change_fiber's ret goes
    for (int i = 0; i < 6; i++) *--top = nullptr;  // the six registers
    place.stack_pointer = top;
}
#else  // any other processor: the C library's way, slower
struct Place { ucontext_t context; };
inline void change_fiber(Place* from, const Place* to) { swapcontext(&from->context, &to->context); }
inline void prepare(Place& place, char* stack, size_t size, void (*body)()) {
    getcontext(&place.context);
    place.context.uc_stack.ss_sp = stack;
    place.context.uc_stack.ss_size = size;
    place.context.uc_link = nullptr;
    makecontext(&place.context, body, 0);
}
#endif

struct Fiber {
    Place place;
    char* stack;
    size_t size;  // of the stack, less what keeps it apart from the others
    bool idle;    // nothing is left unfinished on the stack

    Fiber(size_t number, void (*body)()) : size(STACK - number % PLACES * APART) {
        stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        restart(body);
    }
    void restart(void (*body)()) {
        prepare(place, stack, size, body);
        idle = true;
    }
    bool holds(const char* address) const { return address >= stack && address < stack + STACK; }
};

}  // namespace fibers
