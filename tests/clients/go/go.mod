module backscroll/follow

go 1.18
