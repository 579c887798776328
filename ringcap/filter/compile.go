package filter

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// DefaultSnap is more than any packet has.
const DefaultSnap = 262144

// maxInstructions is BPF_MAXINSNS, the most that the kernel takes.
const maxInstructions = 4096

// Options for a program.
type Options struct {
	// Snap is how many bytes of a matching packet are captured, DefaultSnap if 0.
	Snap uint32
	// Metadata says that the program runs in the kernel, where the outermost
	// VLAN tag is usually not in the packet but beside it. Without it the
	// program reads packets as they are in a file.
	Metadata bool
}

// Error is a mistake in an expression.
type Error struct {
	Pos     int // in bytes
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("parse filter: at byte %d: %s", e.Pos+1, e.Message)
}

// Compile translates an expression. The empty one takes everything.
func Compile(expression string, opts Options) ([]bpf.RawInstruction, error) {
	if opts.Snap == 0 {
		opts.Snap = DefaultSnap
	}
	g := &generator{}
	reject := g.push(ret(0))
	accept := g.push(ret(opts.Snap))
	plain, tagged, err := parse(expression, false)
	if err != nil {
		return nil, err
	}
	if plain == nil {
		return []bpf.RawInstruction{ret(opts.Snap)}, nil
	}
	entry := g.gen(plain, accept, reject)
	if tagged && opts.Metadata {
		// The tag may be in either place: one program for each.
		beside, _, err := parse(expression, true)
		if err != nil {
			return nil, err
		}
		withTag := g.gen(beside, accept, reject)
		g.gen(&node{op: opTest, test: test{load: loadTagPresent, cond: unix.BPF_JEQ, value: 1}}, withTag, entry)
	}
	if len(g.reversed) > maxInstructions {
		return nil, &Error{Message: fmt.Sprintf("expression needs %d instructions, the kernel takes %d", len(g.reversed), maxInstructions)}
	}
	program := make([]bpf.RawInstruction, len(g.reversed))
	for i, ins := range g.reversed {
		program[len(program)-1-i] = ins
	}
	return program, nil
}

func ret(n uint32) bpf.RawInstruction {
	return bpf.RawInstruction{Op: unix.BPF_RET | unix.BPF_K, K: n}
}

// generator writes a program from its end to its start: jumps only go forward,
// so every target is known when a jump to it is written.
type generator struct{ reversed []bpf.RawInstruction }

// label is how many instructions there are from an instruction to the end.
type label int

func (g *generator) push(ins bpf.RawInstruction) label {
	g.reversed = append(g.reversed, ins)
	return label(len(g.reversed))
}

// distance is what a jump that is written next has to skip.
func (g *generator) distance(to label) int { return len(g.reversed) - int(to) }

// near returns a label that a conditional jump, written after at most one more
// instruction, can reach.
func (g *generator) near(to label) label {
	if g.distance(to) < 254 {
		return to
	}
	return g.push(bpf.RawInstruction{Op: unix.BPF_JMP | unix.BPF_JA, K: uint32(g.distance(to))})
}

// gen writes code that goes on at yes if the node holds, and at no otherwise.
func (g *generator) gen(n *node, yes, no label) label {
	switch n.op {
	case opAnd:
		return g.gen(n.left, g.gen(n.right, yes, no), no)
	case opOr:
		return g.gen(n.left, yes, g.gen(n.right, yes, no))
	case opNot:
		return g.gen(n.left, no, yes)
	default:
		return g.test(n.test, yes, no)
	}
}

func (g *generator) test(t test, yes, no label) label {
	yes = g.near(yes)
	no = g.near(no)
	g.push(bpf.RawInstruction{
		Op: unix.BPF_JMP | t.cond | unix.BPF_K, K: t.value,
		Jt: uint8(g.distance(yes)), Jf: uint8(g.distance(no)),
	})
	if t.mask != 0 {
		g.push(bpf.RawInstruction{Op: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: t.mask})
	}
	switch t.load {
	case loadLen:
		return g.push(bpf.RawInstruction{Op: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN})
	case loadTagPresent:
		return g.push(bpf.RawInstruction{Op: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: adTagPresent})
	case loadTag:
		return g.push(bpf.RawInstruction{Op: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: adTag})
	case loadTransport:
		g.push(bpf.RawInstruction{Op: unix.BPF_LD | t.size | unix.BPF_IND, K: t.network + t.offset})
		return g.push(bpf.RawInstruction{Op: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: t.network})
	default:
		return g.push(bpf.RawInstruction{Op: unix.BPF_LD | t.size | unix.BPF_ABS, K: t.offset})
	}
}
