package config_test

import (
	"fmt"
	"os"

	"github.com/tproxyd/tproxyd/config"
)

func ExampleParse() {
	cfg, err := config.Parse("tproxyd.toml", []byte(`
[[service]]
name = "web"
listen = ["203.0.113.10:8000-8001"]
  [[service.backend]]
  address = "198.18.2.2:8443"
`))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	web := cfg.Services[0]
	fmt.Println(web.Name, web.Mode, web.Source, web.Listen, web.ConnectTimeout)
	// Output: web vip client [203.0.113.10:8000 203.0.113.10:8001] 3s
}

func ExampleParse_errors() {
	_, err := config.Parse("tproxyd.toml", []byte(`
[[service]]
name = "web"
listen = ["203.0.113.10"]
idle_timeout = 30
  [[service.backend]]
  adress = "198.18.2.2:8443"
`))
	fmt.Println(err)
	// Output:
	// tproxyd.toml:4: service "web" listen[0]: "203.0.113.10" has no port; write an IP address and a port, such as "203.0.113.10:443"
	// tproxyd.toml:5: service "web" idle_timeout: expected a duration in quotes, got the integer 30; write idle_timeout = "30s" if seconds are meant
	// tproxyd.toml:6: service "web" backend[0]: the backend has no address; add address = "198.18.2.2:8443"
	// tproxyd.toml:7: service "web" backend[0].adress: unknown key; write address, or remove it
}
