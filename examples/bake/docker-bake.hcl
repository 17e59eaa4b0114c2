variable "VERSION" {
  default = "1.0"
}

group "default" {
  targets = ["web"]
}

target "base" {
  dockerfile-inline = "FROM limpet/host\nRUN echo base > /base\n"
}

target "web" {
  context  = "web"
  contexts = { base = "target:base" }
  args     = { VERSION = VERSION }
  tags     = ["web:${VERSION}"]
}
