package config

// readAnnounce reads whether the addresses of a service are announced, and where.
// There is nothing to announce but addresses that are the service's own.
func (t table) readAnnounce(s *Service) {
	s.Announce = t.boolean("announce")
	device := t.string("announce_interface")
	if device != "" && !interfaceName.MatchString(device) {
		t.r.failf(t.at("announce_interface"), `write the name of one, such as "eth0", or "" for those that have the network of the address`, "%s is no network interface", quote(device))
		device = ""
	}
	if !s.Announce {
		t.idle("announce_interface", "add announce = true, or remove it", "nothing is announced, since announce is false")
		return
	}
	s.AnnounceInterface = device
	at := t.at("announce")
	if s.Mode == ModeIntercept {
		t.r.failf(at, "remove it, since hosts on the way to an address are not asked for it", "an intercept service has no address of its own")
		return
	}
	for _, l := range s.Listen {
		switch a := l.Addr(); {
		case a.IsUnspecified():
			t.r.failf(at, "write the addresses into listen one by one, or remove announce", "%s stands for all addresses", l)
			return
		case a.IsLoopback():
			t.r.failf(at, "remove it, or the address from listen", "%s is a loopback address, which no neighbour looks for", l)
			return
		case device != "" && a.Zone() != "" && a.Zone() != device:
			t.r.failf(t.at("announce_interface"), "write "+quote(a.Zone())+", or remove it", "%s is an address of another interface", l)
			return
		}
	}
}
