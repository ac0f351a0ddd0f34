#include "instruction.h"

#include <cstring>

namespace amx {

namespace {

/// The fields of a VEX prefix of three bytes, of an opcode, and of ModRM.
struct Fields {
    int map, prefix, opcode;
    bool wide, long_vectors;
    /// The registers: `reg` and `rm` of ModRM, `index` and `base` of SIB have 4 bits each with VEX.R, X
    /// and B.
    int vvvv, mod, reg, rm;
    bool x, b;
};

enum Prefix { NONE, OPERAND_SIZE, F3, F2 };

constexpr int VEX3 = 0xc4, MAP_0F38 = 2, REGISTER = 3, HAS_SIB = 4, NO_INDEX = 4, NO_BASE = 5, UNUSED = 0;

/// The bytes from VEX to ModRM.
constexpr int HEADER = 5;

/// VEX.R, X, B and vvvv are inverted.
Fields fields_of(const uint8_t *code) {
    Fields fields{};
    fields.map = code[1] & 31;
    fields.wide = code[2] & 128;
    fields.vvvv = ~code[2] >> 3 & 15;
    fields.long_vectors = code[2] & 4;
    fields.prefix = code[2] & 3;
    fields.opcode = code[3];
    fields.mod = code[4] >> 6;
    fields.x = !(code[1] & 64);
    fields.b = !(code[1] & 32);
    fields.reg = (code[4] >> 3 & 7) | (code[1] & 128 ? 0 : 8);
    fields.rm = (code[4] & 7) | (fields.b ? 8 : 0);
    return fields;
}

/// The operation, if the operands are of the form that it requires.
std::optional<Operation> operation_of(const Fields &fields) {
    const bool in_memory = fields.mod != REGISTER, has_sib = in_memory && (fields.rm & 7) == HAS_SIB;
    if (fields.opcode == 0x5e && !in_memory) {
        constexpr Operation BY_PREFIX[] = {Operation::MULTIPLY_UNSIGNED_UNSIGNED, Operation::MULTIPLY_UNSIGNED_SIGNED,
            Operation::MULTIPLY_SIGNED_UNSIGNED, Operation::MULTIPLY_SIGNED_SIGNED};
        return BY_PREFIX[fields.prefix];
    }
    if (fields.opcode == 0x5c && !in_memory && fields.prefix == F3) return Operation::MULTIPLY_BF16;
    if (fields.vvvv != UNUSED) return {};
    if (fields.opcode == 0x4b && has_sib && fields.prefix != NONE) {
        return fields.prefix == F3 ? Operation::STORE : Operation::LOAD;
    }
    if (fields.opcode != 0x49) return {};
    if (in_memory && fields.reg == 0 && fields.prefix == NONE) return Operation::LOAD_CONFIG;
    if (in_memory && fields.reg == 0 && fields.prefix == OPERAND_SIZE) return Operation::STORE_CONFIG;
    if (!in_memory && fields.reg == 0 && fields.rm == 0 && fields.prefix == NONE) return Operation::RELEASE;
    if (!in_memory && fields.rm == 0 && fields.prefix == F2) return Operation::ZERO;
    return {};
}

/// An operand in memory: `first` is base + displacement, `stride` is index * scale.
struct Operand {
    uint64_t first;
    int64_t stride;
    int length;
};

/// Decodes SIB and the displacement, which follow ModRM. An address relative to the instruction
/// pointer is relative to the end of the instruction.
Operand operand_of(const uint8_t *code, const Fields &fields, const Registers &registers) {
    Operand operand{};
    operand.length = HEADER;
    int base = fields.rm;
    if ((fields.rm & 7) == HAS_SIB) {
        const uint8_t sib = code[operand.length++];
        const int index = (sib >> 3 & 7) | (fields.x ? 8 : 0);
        base = (sib & 7) | (fields.b ? 8 : 0);
        if (index != NO_INDEX) operand.stride = static_cast<int64_t>(registers[index] << (sib >> 6));
    }
    const bool no_base = fields.mod == 0 && (base & 7) == NO_BASE;
    const uint8_t *displacement = code + operand.length;
    if (fields.mod == 1) {
        operand.first = static_cast<int64_t>(static_cast<int8_t>(*displacement));
        operand.length += 1;
    } else if (fields.mod == 2 || no_base) {
        int32_t all;
        std::memcpy(&all, displacement, sizeof(all));
        operand.first = static_cast<int64_t>(all);
        operand.length += sizeof(all);
    }
    if (!no_base) operand.first += registers[base];
    else if ((fields.rm & 7) != HAS_SIB) operand.first += reinterpret_cast<uint64_t>(code) + operand.length;
    return operand;
}

} // namespace

std::optional<Instruction> decode(const uint8_t *code, const Registers &registers) {
    if (code[0] != VEX3) return {};
    const Fields fields = fields_of(code);
    if (fields.map != MAP_0F38 || fields.wide || fields.long_vectors) return {};
    const std::optional<Operation> operation = operation_of(fields);
    if (!operation) return {};
    Instruction instruction{*operation, HEADER, fields.reg, fields.rm, fields.vvvv, 0, 0};
    if (fields.mod == REGISTER) return instruction;
    const Operand operand = operand_of(code, fields, registers);
    instruction.length = operand.length;
    instruction.address = operand.first;
    instruction.stride = operand.stride;
    // Only the instructions that load or store a tile use the index as a stride.
    if (fields.opcode == 0x49) instruction.address += static_cast<uint64_t>(operand.stride);
    return instruction;
}

} // namespace amx
