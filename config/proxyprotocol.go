package config

import "time"

// readProxyProtocol reads which headers of the PROXY protocol come and go.
func (t table) readProxyProtocol(s *Service) {
	before := len(t.r.errs)
	s.ProxyProtocol = choice(t, "proxy_protocol", ProxyProtocolOff, ProxyProtocolRequire, ProxyProtocolAcceptFrom)
	known := len(t.r.errs) == before
	s.ProxyProtocolFrom = unique(t.prefixes("proxy_protocol_from"))
	if s.ProxyProtocol == ProxyProtocolOff && known {
		for _, key := range []string{"proxy_protocol_from", "proxy_protocol_timeout"} {
			if key != "proxy_protocol_timeout" || t.protocol.serves(key) { // else noted
				t.refuse(key, `remove it, or write proxy_protocol = "require" or "accept-from"`, `proxy_protocol = "off" has no such key`)
			}
		}
	}
	if s.ProxyProtocol == ProxyProtocolAcceptFrom && len(s.ProxyProtocolFrom) == 0 && len(t.r.errs) == before {
		t.r.failf(t.at("proxy_protocol"), "add "+t.field("proxy_protocol_from").example()+`, or write "require"`,
			"proxy_protocol_from says of nobody that it sends the header")
	}
	if s.ProxyProtocol != ProxyProtocolOff && t.protocol != ProtocolUDP {
		s.ProxyProtocolTimeout = t.duration("proxy_protocol_timeout", span{least: 10 * time.Millisecond, most: 5 * time.Minute})
	}
	s.SendProxy = choice(t, "send_proxy", SendProxyOff, SendProxyV1, SendProxyV2)
	if s.SendProxy == SendProxyV1 && t.protocol == ProtocolUDP {
		t.r.failf(t.at("send_proxy"), `write send_proxy = "v2"`, "version 1 of the PROXY protocol knows no UDP")
	}
}
