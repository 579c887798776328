package flowbpf

// Run runs the program over a packet. The kernel takes the first link header
// away before it does, so that it gets one more.
func (s *Set) Run(packet []byte) (uint32, error) {
	ret, _, err := s.program.Test(append(make([]byte, 14), packet...))
	return ret, err
}
