// Checks the decoder with instructions that the assembler encoded.

#include <cstring>
#include <string>

#include "expect.h"
#include "instruction.h"

// Encoded, not executed.
asm(R"(
.pushsection .rodata
amx_all_bases_and_indices:
.irp base, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
.irp index, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
    tileloadd -8(%\base, %\index, 4), %tmm5
.endr
.endr
amx_all_tiles:
.irp sums, 0, 1, 2, 3, 4, 5, 6, 7
.irp left, 0, 1, 2, 3, 4, 5, 6, 7
.irp right, 0, 1, 2, 3, 4, 5, 6, 7
.if (\sums - \left) * (\sums - \right) * (\left - \right)
    tdpbusd %tmm\right, %tmm\left, %tmm\sums
.endif
.endr
.endr
.endr
.popsection
)");

extern "C" const uint8_t amx_all_bases_and_indices[], amx_all_tiles[];

namespace amx {

namespace {

constexpr int RAX = 0, RBX = 3, RSP = 4, RBP = 5, R12 = 12, R13 = 13, R15 = 15;

uint64_t value_of(int number) { return (number + 1) * 0x10000000000u; }

std::optional<Instruction> decode(const uint8_t *code) {
    Registers registers;
    for (int i = 0; i < GENERAL_REGISTERS; i++) registers[i] = value_of(i);
    return amx::decode(code, registers);
}

void check_bases_and_indices() {
    const uint8_t *code = amx_all_bases_and_indices;
    for (int base = 0; base < GENERAL_REGISTERS; base++) {
        for (int index = 0; index < GENERAL_REGISTERS; index++) {
            // Its number means that there is no index.
            if (index == RSP) continue;
            const auto found = decode(code);
            const bool same = found && found->operation == Operation::LOAD && found->tile == 5 && found->length == 7 &&
                found->address == value_of(base) - 8 && found->stride == static_cast<int64_t>(value_of(index) * 4);
            expect(same, ("base " + std::to_string(base) + ", index " + std::to_string(index)).c_str());
            code += 7;
        }
    }
}

void check_tiles() {
    const uint8_t *code = amx_all_tiles;
    for (int sums = 0; sums < 8; sums++) {
        for (int left = 0; left < 8; left++) {
            for (int right = 0; right < 8; right++) {
                if (sums == left || sums == right || left == right) continue;
                const auto found = decode(code);
                const bool same = found && found->operation == Operation::MULTIPLY_UNSIGNED_SIGNED && found->length == 5 &&
                    found->tile == sums && found->left == left && found->right == right;
                expect(same, ("tdpbusd of tiles " + std::to_string(sums * 100 + left * 10 + right)).c_str());
                code += 5;
            }
        }
    }
}

struct Encoding {
    const uint8_t *begin, *end;
};

/// The encoding of an instruction. The program jumps over it.
#define ENCODING(text)                                                                                               \
    [] {                                                                                                             \
        Encoding encoding;                                                                                           \
        asm("jmp 2f\n1: " text "\n2: lea 1b(%%rip), %0\nlea 2b(%%rip), %1" : "=r"(encoding.begin), "=r"(encoding.end)); \
        return encoding;                                                                                             \
    }()

void check_operation(Encoding encoding, Operation operation, int tile, const char *what) {
    const auto found = decode(encoding.begin);
    expect(found && found->operation == operation && found->tile == tile && encoding.begin + found->length == encoding.end, what);
}

void check_operations() {
    check_operation(ENCODING("ldtilecfg (%%rax)"), Operation::LOAD_CONFIG, 0, "ldtilecfg");
    check_operation(ENCODING("sttilecfg (%%rax)"), Operation::STORE_CONFIG, 0, "sttilecfg");
    check_operation(ENCODING("tilerelease"), Operation::RELEASE, 0, "tilerelease");
    check_operation(ENCODING("tilezero %%tmm6"), Operation::ZERO, 6, "tilezero");
    check_operation(ENCODING("tileloadd (%%rax,%%rbx), %%tmm3"), Operation::LOAD, 3, "tileloadd");
    check_operation(ENCODING("tileloaddt1 (%%rax,%%rbx), %%tmm3"), Operation::LOAD, 3, "tileloaddt1");
    check_operation(ENCODING("tilestored %%tmm4, (%%rax,%%rbx)"), Operation::STORE, 4, "tilestored");
    check_operation(ENCODING("tdpbssd %%tmm1, %%tmm2, %%tmm3"), Operation::MULTIPLY_SIGNED_SIGNED, 3, "tdpbssd");
    check_operation(ENCODING("tdpbsud %%tmm1, %%tmm2, %%tmm3"), Operation::MULTIPLY_SIGNED_UNSIGNED, 3, "tdpbsud");
    check_operation(ENCODING("tdpbusd %%tmm1, %%tmm2, %%tmm3"), Operation::MULTIPLY_UNSIGNED_SIGNED, 3, "tdpbusd");
    check_operation(ENCODING("tdpbuud %%tmm1, %%tmm2, %%tmm3"), Operation::MULTIPLY_UNSIGNED_UNSIGNED, 3, "tdpbuud");
    check_operation(ENCODING("tdpbf16ps %%tmm1, %%tmm2, %%tmm3"), Operation::MULTIPLY_BF16, 3, "tdpbf16ps");
}

void check_address(Encoding encoding, uint64_t address, int64_t stride, const char *what) {
    const auto found = decode(encoding.begin);
    expect(found && found->address == address && found->stride == stride && encoding.begin + found->length == encoding.end, what);
}

void check_addresses() {
    const int64_t rbx = value_of(RBX), rbp = value_of(RBP), r15 = value_of(R15);
    check_address(ENCODING("tileloadd (%%rax,%%rbx,1), %%tmm0"), value_of(RAX), rbx, "scale 1");
    check_address(ENCODING("tileloadd (%%rax,%%rbx,2), %%tmm0"), value_of(RAX), rbx * 2, "scale 2");
    check_address(ENCODING("tileloadd (%%rax,%%r15,8), %%tmm0"), value_of(RAX), r15 * 8, "scale 8");
    check_address(ENCODING("tileloadd (%%rax), %%tmm0"), value_of(RAX), 0, "no index");
    check_address(ENCODING("tileloadd (%%rsp), %%tmm0"), value_of(RSP), 0, "rsp without an index");
    check_address(ENCODING("tileloadd (%%r12,%%rbp), %%tmm0"), value_of(R12), rbp, "r12");
    check_address(ENCODING("tileloadd 127(%%r13,%%rbx), %%tmm0"), value_of(R13) + 127, rbx, "displacement of 8 bits");
    check_address(ENCODING("tileloadd -129(%%r13,%%rbx), %%tmm0"), value_of(R13) - 129, rbx, "displacement of 32 bits");
    check_address(ENCODING("tileloadd 0x12345(,%%rbx), %%tmm0"), 0x12345, rbx, "no base");
    check_address(ENCODING("ldtilecfg 64(%%rbp)"), rbp + 64, 0, "configuration with a base");
    check_address(ENCODING("ldtilecfg 64(%%rbp,%%rbx,4)"), rbp + 64 + rbx * 4, rbx * 4, "configuration with an index");
    const Encoding relative = ENCODING("ldtilecfg 64(%%rip)");
    check_address(relative, reinterpret_cast<uint64_t>(relative.end) + 64, 0, "configuration relative to rip");
}

void check_other_instructions() {
    expect(!decode(ENCODING("ud2").begin), "ud2 is not of AMX");
    expect(!decode(ENCODING("andn %%rax, %%rbx, %%rcx").begin), "andn is not of AMX");
    expect(!decode(ENCODING("vpdpbusd %%zmm1, %%zmm2, %%zmm3").begin), "vpdpbusd is not of AMX");
    expect(!decode(ENCODING("%{vex%} vpdpbusd %%ymm1, %%ymm2, %%ymm3").begin), "vpdpbusd with VEX is not of AMX");
    uint8_t changed[16];
    const auto change = [&changed](int byte, uint8_t bits) {
        std::memcpy(changed, amx_all_bases_and_indices, sizeof(changed));
        changed[byte] ^= bits;
        return decode(changed);
    };
    expect(change(0, 0).has_value(), "tileloadd");
    expect(!change(1, 1).has_value(), "tileloadd in another opcode map");
    expect(!change(2, 128).has_value(), "tileloadd with VEX.W");
    expect(!change(2, 4).has_value(), "tileloadd with VEX.L");
    expect(!change(2, 8).has_value(), "tileloadd with VEX.vvvv");
    expect(!change(4, 1).has_value(), "tileloadd without SIB");
    const auto ninth = change(1, 128);
    expect(ninth && ninth->tile == 8 + 5, "tile 13, which does not exist");
}

} // namespace

void check_decoding() {
    check_bases_and_indices();
    check_tiles();
    check_operations();
    check_addresses();
    check_other_instructions();
}

} // namespace amx
