package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// PauseRef names the image that holds a pod's namespaces open.
const PauseRef = "coracle.dev/pause:v1"

// pauseBase is where the program's only segment is loaded.
const pauseBase = 0x400000

// Pause makes the image of the smallest program that can hold a pod's
// namespaces: it ignores SIGCHLD, so that the kernel reaps the children that
// a shared process namespace gives it, and sleeps. It is a static ELF file of
// a few hundred bytes, because one runs in every pod: it costs a few pages of
// memory and no start-up time. A container's first process ignores SIGTERM by
// the kernel's rule; runtimes end a sandbox with SIGKILL.
func Pause(arch string) (v1.Image, error) {
	program, err := pauseProgram(arch)
	if err != nil {
		return nil, err
	}
	return Build(Spec{
		Files:      []File{{Path: "/pause", Mode: 0o755, Data: program}},
		Entrypoint: []string{"/pause"},
		User:       "65535:65535",
		Arch:       arch,
	})
}

// ignoreChildren is the kernel's struct sigaction: SIG_IGN, SA_NOCLDWAIT, no
// restorer, empty mask.
var ignoreChildren = [4]uint64{1, 2, 0, 0}

func pauseProgram(arch string) ([]byte, error) {
	switch arch {
	case "amd64":
		code := []byte{
			0xb8, 0x0d, 0x00, 0x00, 0x00, // mov  eax, 13 (rt_sigaction)
			0xbf, 0x11, 0x00, 0x00, 0x00, // mov  edi, 17 (SIGCHLD)
			0x48, 0x8d, 0x35, 0x13, 0x00, 0x00, 0x00, // lea  rsi, [rip+19] (ignoreChildren)
			0x31, 0xd2, // xor  edx, edx
			0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov  r10d, 8
			0x0f, 0x05, // syscall
			0xb8, 0x22, 0x00, 0x00, 0x00, // loop: mov eax, 34 (pause)
			0x0f, 0x05, // syscall
			0xeb, 0xf7, // jmp  loop
		}
		return elfProgram(elf.EM_X86_64, code)
	case "arm64":
		var code []byte
		for _, instruction := range []uint32{
			0xd28010c8, // mov x8, 134 (rt_sigaction)
			0xd2800220, // mov x0, 17 (SIGCHLD)
			0x10000181, // adr x1, .+48 (ignoreChildren)
			0xd2800002, // mov x2, 0
			0xd2800103, // mov x3, 8
			0xd4000001, // svc 0
			0xd2800000, // loop: mov x0, 0
			0xd2800001, // mov x1, 0
			0xd2800002, // mov x2, 0
			0xd2800003, // mov x3, 0
			0xd2800004, // mov x4, 0
			0xd2800928, // mov x8, 73 (ppoll)
			0xd4000001, // svc 0
			0x17fffff9, // b   loop
		} {
			code = binary.LittleEndian.AppendUint32(code, instruction)
		}
		return elfProgram(elf.EM_AARCH64, code)
	default:
		return nil, fmt.Errorf("no pause program for architecture %q: amd64 and arm64 have one", arch)
	}
}

// elfProgram wraps code, followed by ignoreChildren, in a static executable
// with one read-only segment.
func elfProgram(machine elf.Machine, code []byte) ([]byte, error) {
	const headers = 64 + 56
	size := uint64(headers + len(code) + binary.Size(ignoreChildren))
	header := elf.Header64{
		Type:      uint16(elf.ET_EXEC),
		Machine:   uint16(machine),
		Version:   uint32(elf.EV_CURRENT),
		Entry:     pauseBase + headers,
		Phoff:     64,
		Ehsize:    64,
		Phentsize: 56,
		Phnum:     1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	segment := elf.Prog64{
		Type:   uint32(elf.PT_LOAD),
		Flags:  uint32(elf.PF_R | elf.PF_X),
		Vaddr:  pauseBase,
		Paddr:  pauseBase,
		Filesz: size,
		Memsz:  size,
		Align:  0x1000,
	}
	var buf bytes.Buffer
	for _, part := range []any{header, segment, code, ignoreChildren} {
		if err := binary.Write(&buf, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("write pause program: %w", err)
		}
	}
	return buf.Bytes(), nil
}
