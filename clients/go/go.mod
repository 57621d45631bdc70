module backscroll

go 1.24
