// Checks the execution of single instructions: registers as operands, configurations, and invalid
// instructions.

#include <cstring>
#include <string>
#include <thread>

#include <csignal>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"
#include "tiles.h"

namespace amx {

namespace {

/// Palette 1 with 7 tiles of rows of 8 bytes; the last tile is unused.
TileConfig config_of(uint8_t rows) {
    TileConfig config{};
    config.palette = 1;
    for (int tile = 0; tile < TILES - 1; tile++) {
        config.rows[tile] = rows;
        config.row_bytes[tile] = 8;
    }
    return config;
}

TileConfig small_config() { return config_of(3); }

/// Any three tiles are those of a product.
TileConfig square_config() { return config_of(2); }

void load_config(const TileConfig &config) { asm volatile("ldtilecfg %0" ::"m"(config)); }

TileConfig stored_config() {
    TileConfig config;
    asm volatile("sttilecfg %0" : "=m"(config));
    return config;
}

void release() { asm volatile("tilerelease"); }

bool is_equal(const TileConfig &one, const TileConfig &other) { return std::memcmp(&one, &other, sizeof(one)) == 0; }

// ---- registers as operands

constexpr int64_t STRIDE = 24;
/// The rows of a tile in the middle of a stack: a signal that arrives while rsp points to them writes
/// below them.
alignas(64) char stack[1 << 18];
char *const ROWS = stack + (1 << 18) - 1024;

/// Stores tile 5 and checks that it contains the rows of 8 bytes.
void expect_rows(const char *what) {
    char found[3 * STRIDE];
    std::memset(found, 1, sizeof(found));
    asm volatile("tilestored %%tmm5, (%0,%1,1)" ::"r"(found), "r"(STRIDE) : "memory");
    bool same = true;
    for (int row = 0; row < 3; row++) {
        for (int byte = 0; byte < STRIDE && row * STRIDE + byte < static_cast<int>(sizeof(found)); byte++) {
            same = same && found[row * STRIDE + byte] == (byte < 8 ? ROWS[row * STRIDE + byte] : 1);
        }
    }
    expect(same, what);
    asm volatile("tilezero %tmm5");
}

#define LOAD_WITH(base_name, index_name)                                                            \
    {                                                                                               \
        register const char *base asm(base_name) = ROWS;                                            \
        register int64_t stride asm(index_name) = STRIDE;                                           \
        asm volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(base), "r"(stride) : "memory");            \
        expect_rows("base " base_name ", index " index_name);                                       \
    }

void check_registers() {
    for (int i = 0; i < 3 * STRIDE; i++) ROWS[i] = static_cast<char>(10 + i);
    load_config(small_config());
    LOAD_WITH("rax", "r15");
    LOAD_WITH("rcx", "r14");
    LOAD_WITH("rdx", "r13");
    LOAD_WITH("rbx", "r12");
    LOAD_WITH("rsi", "r11");
    LOAD_WITH("rdi", "r10");
    LOAD_WITH("r8", "r9");
    LOAD_WITH("r9", "r8");
    LOAD_WITH("r10", "rdi");
    LOAD_WITH("r11", "rsi");
    LOAD_WITH("r12", "rbx");
    LOAD_WITH("r13", "rdx");
    LOAD_WITH("r14", "rcx");
    LOAD_WITH("r15", "rax");
    // The compiler may need rsp and rbp: it finds its own values again.
    uint64_t saved;
    asm volatile("mov %%rsp, %0\n mov %1, %%rsp\n tileloadd (%%rsp,%2,1), %%tmm5\n mov %0, %%rsp"
                 : "=&r"(saved) : "r"(ROWS), "r"(STRIDE) : "memory");
    expect_rows("base rsp");
    asm volatile("mov %%rbp, %0\n mov %1, %%rbp\n tileloadd (%%rbp,%2,1), %%tmm5\n mov %0, %%rbp"
                 : "=&r"(saved) : "r"(ROWS), "r"(STRIDE) : "memory");
    expect_rows("base rbp");
    asm volatile("mov %%rbp, %0\n mov %2, %%rbp\n tileloadd (%1,%%rbp,1), %%tmm5\n mov %0, %%rbp"
                 : "=&r"(saved) : "r"(ROWS), "r"(STRIDE) : "memory");
    expect_rows("index rbp");
    const char *last = ROWS + 2 * STRIDE;
    asm volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(last), "r"(-STRIDE) : "memory");
    asm volatile("tilestored %%tmm5, (%0,%1,1)" ::"r"(stack + 2 * STRIDE), "r"(-STRIDE) : "memory");
    expect(std::memcmp(stack, ROWS, 8) == 0 && std::memcmp(stack + STRIDE, ROWS + STRIDE, 8) == 0, "negative stride");
    release();
}

// ---- configurations

void check_configurations() {
    const TileConfig none{}, small = small_config();
    expect(is_equal(stored_config(), none), "no tiles at first");
    load_config(small);
    expect(is_equal(stored_config(), small), "sttilecfg stores what ldtilecfg loaded");
    std::thread([&none] { expect(is_equal(stored_config(), none), "each thread has its own configuration"); }).join();
    expect(is_equal(stored_config(), small), "another thread does not change the configuration");
    release();
    expect(is_equal(stored_config(), none), "tilerelease removes the configuration");
    load_config(small);
    load_config(none);
    expect(is_equal(stored_config(), none), "palette 0 removes the configuration");

    char zeros[3 * 8] = {}, found[3 * 8];
    load_config(small);
    asm volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(ROWS), "r"(STRIDE) : "memory");
    load_config(small);
    asm volatile("tilestored %%tmm5, (%0,%1,1)" ::"r"(found), "r"(8L) : "memory");
    expect(std::memcmp(found, zeros, sizeof(zeros)) == 0, "ldtilecfg zeroes the tiles");
    asm volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(ROWS), "r"(STRIDE) : "memory");
    asm volatile("tilezero %%tmm5\n tilestored %%tmm5, (%0,%1,1)" ::"r"(found), "r"(8L) : "memory");
    expect(std::memcmp(found, zeros, sizeof(zeros)) == 0, "tilezero zeroes a tile");
    release();
}

// ---- invalid instructions

/// Runs `body` in a child process, and expects that a signal ends it: SIGILL, or SIGSEGV where a
/// processor raises #GP.
template <class Body> void expect_fault(Body body, const char *what) {
    const pid_t child = fork();
    if (child == 0) {
        const rlimit no_core{};
        setrlimit(RLIMIT_CORE, &no_core);
        std::signal(SIGSEGV, SIG_DFL);
        body();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    expect(WIFSIGNALED(status) && (WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGSEGV), what);
}

template <class Change> void expect_invalid_config(Change change, const char *what) {
    TileConfig config = small_config();
    change(config);
    expect_fault([&config] { load_config(config); }, what);
}

void check_faults() {
    expect_fault([] { asm volatile("ud2"); }, "ud2");
    expect_fault([] { asm volatile("tilezero %tmm0"); }, "tilezero without a configuration");
    expect_fault([] { load_config(small_config()); release(); asm volatile("tilezero %tmm0"); }, "tilezero after tilerelease");
    expect_fault([] { load_config(small_config()); asm volatile("tilezero %tmm7"); }, "tilezero of an unused tile");
    expect_fault([] { load_config(small_config()); asm volatile("tdpbusd %tmm1, %tmm2, %tmm3"); }, "tdpbusd of other shapes");
    expect_fault([] { load_config(small_config()); asm volatile("tdpbf16ps %tmm1, %tmm2, %tmm3"); }, "tdpbf16ps of other shapes");
    expect_fault([] { load_config(square_config()); asm volatile(".byte 0xc4, 0xe2, 0x71, 0x5e, 0xc1"); }, "tdpbusd of one tile twice");
    expect_invalid_config([](TileConfig &config) { config.palette = 2; }, "palette 2");
    expect_invalid_config([](TileConfig &config) { config.reserved[13] = 1; }, "a reserved byte");
    expect_invalid_config([](TileConfig &config) { config.row_bytes[8] = 8; }, "bytes of a ninth tile");
    expect_invalid_config([](TileConfig &config) { config.rows[8] = 3; }, "rows of a ninth tile");
    expect_invalid_config([](TileConfig &config) { config.rows[1] = 17; }, "17 rows");
    expect_invalid_config([](TileConfig &config) { config.row_bytes[1] = 68; }, "68 bytes");
    expect_invalid_config([](TileConfig &config) { config.rows[1] = 0; }, "bytes without rows");
    expect_invalid_config([](TileConfig &config) { config.row_bytes[1] = 0; }, "rows without bytes");
}

} // namespace

void check_execution() {
    check_registers();
    check_configurations();
    check_faults();
}

} // namespace amx
