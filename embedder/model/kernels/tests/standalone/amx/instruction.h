// Decodes the instructions of AMX.

#pragma once

#include <cstdint>
#include <optional>

namespace amx {

enum class Operation {
    LOAD_CONFIG,
    STORE_CONFIG,
    RELEASE,
    ZERO,
    LOAD,
    STORE,
    MULTIPLY_SIGNED_SIGNED,
    MULTIPLY_SIGNED_UNSIGNED,
    MULTIPLY_UNSIGNED_SIGNED,
    MULTIPLY_UNSIGNED_UNSIGNED,
    MULTIPLY_BF16,
};

struct Instruction {
    Operation operation;
    /// Number of bytes.
    int length;
    /// The tile that the instruction reads or writes.
    int tile;
    /// The factors of a product.
    int left;
    int right;
    /// The operand in memory: of LOAD and STORE the first row.
    uint64_t address;
    /// Distance of two rows in bytes.
    int64_t stride;
};

constexpr int GENERAL_REGISTERS = 16;

/// The general registers in the order of their numbers in instructions: rax, rcx, rdx, rbx, rsp, rbp,
/// rsi, rdi, r8 to r15.
using Registers = uint64_t[GENERAL_REGISTERS];

/// Decodes the instruction at `code`; returns nothing for an instruction that is not of AMX-TILE,
/// AMX-INT8 or AMX-BF16. TILELOADDT1 is a TILELOADD.
std::optional<Instruction> decode(const uint8_t *code, const Registers &registers);

} // namespace amx
