package flowbpf

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// maxTags is how many VLAN tags the program looks behind, as ringcap.FlowSet.
const maxTags = 2

// instructions are the filter. r6 is the packet, as loads by LD_ABS and LD_IND
// want it, which end the program with 0 beyond the packet's end; r7 is where
// the IP header starts, r8 where the ports are. The key is built on the stack.
func instructions(mapFD int) asm.Instructions {
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R0, 0)}
	for off := int16(-keyLen); off < 0; off += 8 {
		ins = append(ins, asm.StoreMem(asm.RFP, off, asm.R0, asm.DWord))
	}
	for tags := range int32(maxTags + 1) {
		ins = append(ins,
			asm.Mov.Imm(asm.R7, 14+4*tags).WithSymbol(fmt.Sprintf("tags%d", tags)),
			asm.LoadAbs(12+4*tags, asm.Half),
			asm.JEq.Imm(asm.R0, unix.ETH_P_IP, "ip4"),
			asm.JEq.Imm(asm.R0, unix.ETH_P_IPV6, "ip6"),
		)
		if tags == maxTags {
			break
		}
		next := fmt.Sprintf("tags%d", tags+1)
		ins = append(ins,
			asm.JEq.Imm(asm.R0, unix.ETH_P_8021Q, next),
			asm.JNE.Imm(asm.R0, unix.ETH_P_8021AD, "reject"),
		)
	}
	ins = append(ins, asm.Ja.Label("reject"))
	ins = append(ins, ip4()...)
	ins = append(ins, ip6()...)
	return append(ins, lookup(mapFD)...)
}

func ip4() asm.Instructions {
	ins := asm.Instructions{
		asm.LoadInd(asm.R0, asm.R7, 6, asm.Half).WithSymbol("ip4"),
		asm.And.Imm(asm.R0, 0x1fff),
		asm.JNE.Imm(asm.R0, 0, "reject"), // a later fragment
		asm.LoadInd(asm.R0, asm.R7, 9, asm.Byte),
		asm.StoreMem(asm.RFP, keyProtocol-keyLen, asm.R0, asm.Byte),
		asm.LoadInd(asm.R0, asm.R7, 0, asm.Byte),
		asm.And.Imm(asm.R0, 15),
		asm.LSh.Imm(asm.R0, 2),
		asm.JLT.Imm(asm.R0, 20, "reject"),
		asm.Mov.Reg(asm.R8, asm.R7),
		asm.Add.Reg(asm.R8, asm.R0),
		// ::ffff:0:0/96 before both addresses.
		asm.Mov.Imm(asm.R0, 0xffff),
		asm.StoreMem(asm.RFP, keyAddrs+10-keyLen, asm.R0, asm.Half),
		asm.StoreMem(asm.RFP, keyAddrs+26-keyLen, asm.R0, asm.Half),
	}
	ins = append(ins, load(asm.R7, 12, keyAddrs+12, 4)...)
	ins = append(ins, load(asm.R7, 16, keyAddrs+28, 4)...)
	return append(ins, asm.Ja.Label("ports"))
}

func ip6() asm.Instructions {
	ins := asm.Instructions{
		asm.LoadInd(asm.R0, asm.R7, 6, asm.Byte).WithSymbol("ip6"),
		asm.StoreMem(asm.RFP, keyProtocol-keyLen, asm.R0, asm.Byte),
		asm.Mov.Reg(asm.R8, asm.R7),
		asm.Add.Imm(asm.R8, 40),
	}
	return append(ins, load(asm.R7, 8, keyAddrs, 32)...)
}

// load copies n bytes of the packet, offset behind what reg says, into the key.
func load(reg asm.Register, offset int32, into, n int) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, reg),
		asm.Add.Imm(asm.R2, offset),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, int32(into-keyLen)),
		asm.Mov.Imm(asm.R4, int32(n)),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "reject"),
	}
}

func lookup(mapFD int) asm.Instructions {
	ins := load(asm.R8, 0, keyPorts, 4)
	ins[0] = ins[0].WithSymbol("ports")
	return append(ins,
		asm.LoadMapPtr(asm.R1, mapFD),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -keyLen),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "reject"),
		asm.LoadMem(asm.R0, asm.R0, 0, asm.Word),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("reject"),
		asm.Return(),
	)
}
